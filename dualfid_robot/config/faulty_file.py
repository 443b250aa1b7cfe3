"""Which file of a user's folder of settings is at fault, where the libraries that read it do not say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dualfid_robot.errors import ConfigError


def check_config_dirs() -> None:
    """Raise OSError where a user's folder of settings, or one in it, cannot be read. Hydra would take it for an empty
    one."""
    for folder in (folder for folder in _config_dirs() if folder.is_dir()):
        for entry in list(os.scandir(folder)):
            if entry.is_dir():
                os.scandir(entry.path).close()


def faulty_file() -> ConfigError | None:
    """Names the first file of the user's folder that holds no settings, and what is wrong with it."""
    for path in sorted(path for folder in _config_dirs() for path in folder.rglob("*.yaml")):
        if fault := _fault(path):
            return ConfigError(f"{path}: {fault}")
    return None


def _config_dirs() -> list[Path]:
    """The user's folders of settings, each in one word with its option."""
    return [Path(text.partition("=")[2]) for text in sys.argv[1:] if text.startswith(("--config-dir=", "-cd="))]


def _fault(path: Path) -> str:
    """What is wrong with a file, or nothing. YAML's own errors are left out, since they name the file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict | None):
            return f"holds {content!r:.40}; a mapping of settings is expected"
        if content and not isinstance(content.get("defaults", []), list):
            return f"defaults={content['defaults']!r:.40}: a list is expected"
        OmegaConf.create(content)
    except (OSError, yaml.YAMLError):
        return ""
    except UnicodeDecodeError as error:
        return f"a text in UTF-8 is expected ({error})"
    except RecursionError:
        return "nested too deeply"
    except (ValueError, OmegaConfBaseException) as error:
        return brief(error)
    return ""


def brief(error: Exception) -> str:
    """One line for an error, without OmegaConf's further lines."""
    if not isinstance(error, OmegaConfBaseException):
        return " ".join(str(error).split())
    return ": ".join(text for text in (str(error.full_key or ""), str(error).partition("\n")[0]) if text)
