#!/usr/bin/env bash
# Prints the folder of the local store; the same places as in src/app/model_source.cpp.
if [[ -n ${BISE_HOME:-} ]]; then echo "$BISE_HOME"
elif [[ -n ${XDG_DATA_HOME:-} ]]; then echo "$XDG_DATA_HOME/bise"
else echo "$HOME/.local/share/bise"
fi
