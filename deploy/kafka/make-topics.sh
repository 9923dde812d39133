#!/usr/bin/env bash
# Creates the missing topics of $TOPICS at $BROKERS.
set -euo pipefail
for topic in $TOPICS; do
    # Four partitions, so that four workers can share a topic. The number cannot be reduced later.
    "${KAFKA_HOME:-/opt/kafka}/bin/kafka-topics.sh" --bootstrap-server "$BROKERS" --create --if-not-exists --topic "$topic" \
        --partitions 4 --replication-factor 1
done
