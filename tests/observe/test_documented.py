"""The rules, the dashboard and the pages that tell of them say the same."""

import re
from pathlib import Path

import pytest
import yaml
from markdown.extensions.toc import slugify

from tests.observe.rules import ROOT, alerts, dashboard, expressions, named, panels, with_variables

RUNBOOKS = ROOT / "docs" / "operations" / "runbooks.md"
SITE = "https://tide-relay.github.io/tide-relay/operations/runbooks/"
