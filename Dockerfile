# A small, non-root image that runs `tributary serve`. Built by scripts/build.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /tributary
# First the dependencies alone, against an empty program: this layer lasts as long as the two files do.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/integration benches/pieces \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs tests/integration/main.rs benches/pieces/main.rs \
 && cargo build --locked --release \
 && rm -r src tests benches
ARG COMMIT=unknown
ENV TRIBUTARY_COMMIT=$COMMIT
COPY . .
# Cargo goes by modification times, and the files' may be older than the empty program's.
RUN touch src/main.rs src/lib.rs \
 && cargo build --locked --release

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tributary
COPY --from=build /tributary/target/release/tributary /usr/local/bin/tributary
# By number, so that an orchestrator can see that it is not root.
USER 10001
ENV HTTP_ADDR=0.0.0.0:8080
EXPOSE 8080
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
