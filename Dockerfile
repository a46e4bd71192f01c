# The serving image: svdserve and the libraries that it needs, for the CPU.
#
#   docker build -t svdserve .
#   docker run --read-only -v /path/to/model:/model:ro \
#     -p 50051:50051 -p 9464:9464 svdserve
#
# Or with buildah, without a daemon: see deploy/README.md. BASE is any Debian or
# Ubuntu that tools/packages names packages for.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
WORKDIR /src
COPY tools/packages tools/install_packages tools/
RUN tools/install_packages build
COPY . .
RUN cmake --preset serve \
    && cmake --build --preset serve --target svdserve \
    && mkdir /out \
    && strip -o /out/svdserve build/serve/server/svdserve
# The names of library packages carry versions, so they are asked of the program
# instead of being listed.
RUN ldd /out/svdserve | sed -n 's|.* => \(/[^ ]*\) .*|\1|p' \
    | while read -r library; do \
        dpkg -S "*/$(basename "$(realpath "$library")")" | cut -d: -f1; \
      done | sort -u > /out/packages \
    && sed -n 's/^serve *//p' tools/packages | tr ' ' '\n' >> /out/packages

FROM ${BASE}
RUN --mount=type=bind,from=build,source=/out,target=/out \
    apt-get update -q \
    && xargs apt-get install -y -q --no-install-recommends < /out/packages \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=build /out/svdserve /usr/local/bin/svdserve
# Needs no name, no home and no writable file.
USER 65532:65532
EXPOSE 50051 9464
ENTRYPOINT ["svdserve"]
CMD ["--model", "/model", "--listen", "0.0.0.0:50051", \
     "--metrics-listen", "0.0.0.0:9464"]
