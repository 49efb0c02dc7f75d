"Ê
defaultghcr.io/org/app&v9
€âÏª{¼âÏª{şÏª{kGsha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d
€âÏª{¼âÏª{şÏª{˜‡sha512:b030eade3c76066e854afde060a58d562e103878b92ba17586070c1373c0c31f8c80389eeabbc1370284d983fb066f2c1cee3ad22fd5c580223a13efc5e31832
‰âÏª{