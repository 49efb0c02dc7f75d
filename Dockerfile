# Plain instructions only, so that any engine builds it without pulling a frontend.
#
#   docker build .                     builds from source (needs the golang image)
#   docker build --target prebuilt .   takes dist/ocistern and dist/ca-certificates.crt, pulls nothing (`make image`)

# The last stage is the default one; both end in the same image: one static binary, CA roots, a non-root user.
FROM scratch AS base
# 65532 is the "nonroot" of distroless images; a numeric user is what runAsNonRoot can check.
USER 65532:65532
ENV OCISTERN_DATA_DIR=/data
# registry (/v2/), grpc (client API), admin (health, metrics), peer, raft, gossip (TCP and UDP)
EXPOSE 5000 5010 5020 5030 5040 5050 5050/udp
ENTRYPOINT ["/ocistern"]
CMD ["serve"]

FROM base AS prebuilt
COPY dist/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --chown=65532:65532 dist/data /data
COPY dist/ocistern /ocistern
# Declared last: a build drops what is copied into a volume after its declaration.
VOLUME ["/data"]

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /ocistern ./cmd/ocistern && mkdir /data

FROM base AS final
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /data /data
COPY --from=build /ocistern /ocistern
VOLUME ["/data"]
