#!/bin/sh
# Times building the node layer again of which openshift-clients changed (rebuild.sh): node.sh CORPUS [SIZE] [RUNS]
exec "$(dirname "$0")/rebuild.sh" node ose openshift-clients "$@"
