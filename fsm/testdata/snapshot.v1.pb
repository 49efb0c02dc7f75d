.01J000" å-œPŒP#G4MŒ­‘ËÖŠüuÿb’ğb œ£Èq½
defaultghcr.io/org/app 
v1”
*application/vnd.oci.image.manifest.v1+json‡sha512:b030eade3c76066e854afde060a58d562e103878b92ba17586070c1373c0c31f8c80389eeabbc1370284d983fb066f2c1cee3ad22fd5c580223a13efc5e31832İ"%application/vnd.cncf.notary.signature*
a1*
b2*
cÃ¼2
armlinux1"x"y*v7"
€âÏª{¼âÏª{şÏª{(2U
Gsha256:1a2fc26dc7ea5a2a4748b7cb2b1ef193d96ab2c99f93092f69e63075b28d1278âÏª{:âÏª{”
defaultghcr.io/org/app"÷
Ó
*application/vnd.oci.image.manifest.v1+jsonGsha256:1a2fc26dc7ea5a2a4748b7cb2b1ef193d96ab2c99f93092f69e63075b28d1278İ"%application/vnd.cncf.notary.signature*
a1*
b2*
cÃ¼2
armlinux1"x"y*v7Gsha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3dÓ
*application/vnd.oci.image.manifest.v1+jsonGsha256:1a2fc26dc7ea5a2a4748b7cb2b1ef193d96ab2c99f93092f69e63075b28d1278İ"%application/vnd.cncf.notary.signature*
a1*
b2*
cÃ¼2
armlinux1"x"y*v7 ¶
defaultghcr.io/org/app"™
”
*application/vnd.oci.image.manifest.v1+json‡sha512:b030eade3c76066e854afde060a58d562e103878b92ba17586070c1373c0c31f8c80389eeabbc1370284d983fb066f2c1cee3ad22fd5c580223a13efc5e31832İ"%application/vnd.cncf.notary.signature*
a1*
b2*
cÃ¼2
armlinux1"x"y*v7 Ü
defaultghcr.io/org/app*¿
Gsha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3dÓ
*application/vnd.oci.image.manifest.v1+jsonGsha256:1a2fc26dc7ea5a2a4748b7cb2b1ef193d96ab2c99f93092f69e63075b28d1278İ"%application/vnd.cncf.notary.signature*
a1*
b2*
cÃ¼2
armlinux1"x"y*v7
€âÏª{¼âÏª{şÏª{B
defaultghcr.io/org/app2&v9
€âÏª{¼âÏª{şÏª{‡
defaultghcr.io/org/app2kGsha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d
€âÏª{¼âÏª{şÏª{”
defaultghcr.io/org/app:x
Gsha256:1a2fc26dc7ea5a2a4748b7cb2b1ef193d96ab2c99f93092f69e63075b28d1278*application/vnd.oci.image.manifest.v1+jsonİÖ
defaultghcr.io/org/app:¹
‡sha512:b030eade3c76066e854afde060a58d562e103878b92ba17586070c1373c0c31f8c80389eeabbc1370284d983fb066f2c1cee3ad22fd5c580223a13efc5e31832*application/vnd.oci.image.manifest.v1+jsonİ^B\
Gsha256:1a2fc26dc7ea5a2a4748b7cb2b1ef193d96ab2c99f93092f69e63075b28d1278İnode-1node-2£B 
‡sha512:b030eade3c76066e854afde060a58d562e103878b92ba17586070c1373c0c31f8c80389eeabbc1370284d983fb066f2c1cee3ad22fd5c580223a13efc5e31832€€€€ node-1node-2&J$
 Lñ¼Zó*­ dĞı­EqOZ]ÃrTŒ'(Qİ®?Â