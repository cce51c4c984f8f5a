# A small image that runs `tributary serve`: the program, the libraries that it loads and the public CA certificates, no shell.
# It does not run as root and writes no file: run it with --read-only. scripts/build builds it.

# The dashboard, which is embedded in the program.
FROM node:22-bookworm-slim AS dashboard
WORKDIR /web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY web .
RUN npm run build

FROM rust:1.95-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /tributary
# Cargo features, such as "otlp".
ARG FEATURES=
# Build the dependencies with an empty program first: this layer stays cached until Cargo.toml or Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/integration benches/pieces \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs tests/integration/main.rs benches/pieces/main.rs \
 && cargo build --locked --release --features "$FEATURES" \
 && rm -r src tests benches
ARG COMMIT=unknown
ENV TRIBUTARY_COMMIT=$COMMIT
COPY . .
COPY --from=dashboard /web/dist web/dist
# Cargo compares modification times, and these files may be older than the empty program's.
RUN touch src/main.rs src/lib.rs \
 && cargo build --locked --release --features "$FEATURES"
# The image's content. Debugging information is half of the program; function names stay, for backtraces.
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
# Numeric, so that an orchestrator can verify that it is not root.
USER 10001:10001
ENV HTTP_ADDR=0.0.0.0:8080
EXPOSE 8080
# Checks only that the process runs: it waits for an unavailable broker or database, and a restart would not help.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["tributary", "health"]
# On SIGTERM, messages in flight are committed and acknowledged before the process exits.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tributary"]
CMD ["serve"]
ARG COMMIT=unknown
ARG BRANCH=unknown
LABEL org.opencontainers.image.title="tributary" \
      org.opencontainers.image.description="Stores what sensors publish over MQTT in PostgreSQL by COPY, exactly once" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.ref.name="$BRANCH"
