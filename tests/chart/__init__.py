"""Tests of the chart in deploy/helm, installed by the real Helm engine."""
