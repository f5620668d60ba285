#!/bin/sh
# Times building the bootc layer again of which less changed (rebuild.sh): bootc.sh CORPUS [SIZE] [RUNS]
exec "$(dirname "$0")/rebuild.sh" bootc baseos less "$@"
