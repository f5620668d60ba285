#!/bin/sh
# Times building the bootc layer again of which sudo changed (rebuild.sh): bootc.sh CORPUS [SIZE] [RUNS]
exec "$(dirname "$0")/rebuild.sh" bootc baseos sudo "$@"
