"""A sensor's day with the package tenta. Called by clients.rs: host, port, sensor."""

import sys

from tenta import AcknowledgmentMessage, LogMessage, MeasurementMessage, TentaClient

host, port, sensor = sys.argv[1:]
client = TentaClient(
    mqtt_host=host,
    mqtt_port=int(port),
    mqtt_identifier="",
    mqtt_password="",
    sensor_identifier=sensor,
)
client.publish(MeasurementMessage(value={"t": 20.2}, timestamp=1782896401.0))
client.publish(
    [
        MeasurementMessage(value={"t": 20.3}, revision=1, timestamp=1782896402.5),
        MeasurementMessage(value={"t": float("nan")}, timestamp=1782896403.0),
        MeasurementMessage(value={"t": 20.4}, timestamp=1782896404.0),
    ]
)
client.publish(LogMessage("error", "first line\nmore", revision=0, timestamp=1795883642.7))
client.publish(AcknowledgmentMessage(revision=1, success=True, timestamp=1795883643.7))
client.wait_for_publish(timeout=30)
client.teardown()
