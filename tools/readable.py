"""Fails for TOML and YAML files that cannot be read, with the place."""

import sys
import tomllib
from pathlib import Path

import yaml

wrong = []
for name in sys.argv[1:]:
    text = Path(name).read_text()
    try:
        if name.endswith(".toml"):
            tomllib.loads(text)
        else:
            list(yaml.safe_load_all(text))
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        wrong.append(f"{name}: {error}")
sys.exit("\n".join(wrong) if wrong else 0)
