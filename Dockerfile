# A small image that runs `tributary serve`: the program, the libraries that it loads, and nothing else; not even a shell.
# It does not run as root, and writes no file: run it with --read-only. Built by scripts/build.

FROM rust:1.95-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /tributary
# Of the program's features; "otlp" is one.
ARG FEATURES=
# First the dependencies alone, against an empty program: this layer lasts as long as the two files do.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/integration benches/pieces \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs tests/integration/main.rs benches/pieces/main.rs \
 && cargo build --locked --release --features "$FEATURES" \
 && rm -r src tests benches
ARG COMMIT=unknown
ENV TRIBUTARY_COMMIT=$COMMIT
COPY . .
# Cargo goes by modification times, and the files' may be older than the empty program's.
RUN touch src/main.rs src/lib.rs \
 && cargo build --locked --release --features "$FEATURES"
# What the image will hold. Debugging information is half of the program; names of functions stay, for backtraces.
RUN mkdir -p /image/usr/local/bin /image/etc/ssl/certs \
 && strip --strip-debug -o /image/usr/local/bin/tributary target/release/tributary \
 && ldd target/release/tributary | grep -o '/[^ ]*' | while read -r library; do \
      mkdir -p "/image$(dirname "$library")" && cp -L "$library" "/image$library"; \
    done \
 && cp -L /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
 && echo 'tributary:x:10001:10001::/:/usr/local/bin/tributary' > /image/etc/passwd \
 && echo 'tributary:x:10001:' > /image/etc/group

FROM scratch
COPY --from=build /image/ /
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
ENV HTTP_ADDR=0.0.0.0:8080
EXPOSE 8080
# Whether the process lives: it waits for a broker or a database that is away, and must not be restarted for that.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["tributary", "health"]
# SIGTERM: what is in flight is committed and acknowledged before the process ends.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tributary"]
CMD ["serve"]
ARG COMMIT=unknown
ARG BRANCH=unknown
LABEL org.opencontainers.image.title="tributary" \
      org.opencontainers.image.description="Takes what fleets of sensors say over MQTT and puts it into PostgreSQL at the speed of COPY" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.ref.name="$BRANCH"
