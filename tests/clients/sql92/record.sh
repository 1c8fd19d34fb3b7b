#!/usr/bin/env bash
# Asks Apache's own rocketmq-filter again what the expressions of tests/data/sql92/table.tsv come to. To add one, append a line
# with a tab before it; \n, \t, \r and \\ stand for what cannot stand there.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp pom.xml "$work"
(cd "$work" && mvn --batch-mode --quiet dependency:copy-dependencies -DoutputDirectory="$work/jars")
java -cp "$work/jars/*" Verdicts.java ../../data/sql92
