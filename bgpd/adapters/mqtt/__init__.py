"""Telling an MQTT broker what happens."""
