#!/usr/bin/env bash
# Makes the topics of $TOPICS at $BROKERS, those that are not there.
set -euo pipefail
for topic in $TOPICS; do
    # Four partitions: as many workers may share a topic, and one never gets fewer without being emptied.
    "${KAFKA_HOME:-/opt/kafka}/bin/kafka-topics.sh" --bootstrap-server "$BROKERS" --create --if-not-exists --topic "$topic" \
        --partitions 4 --replication-factor 1
done
