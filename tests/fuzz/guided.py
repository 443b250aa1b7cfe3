"""Fuzzing that is guided by coverage, of what reads foreign bytes.

    pip install atheris
    python tests/fuzz/guided.py urdf -max_total_time=300

Mutations that reach new lines of the reader are mutated further. An outcome must be a result or an error in one line.
Anything else ends the search, and the input lies in the present folder (`crash-…`). Options behind the reader's name
are libFuzzer's. What is found becomes an example of the tests beside this file.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris
import torch  # noqa: F401  # it need not be observed

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

with atheris.instrument_imports(include=["dualfid_robot"]):
    import dualfid_robot.export.launch
    import dualfid_robot.robots.importer.robot
    from dualfid_robot.algorithms.rules import replay
    from dualfid_robot.config.command_line import describe
    from dualfid_robot.config.engines import compose_config, hydra_apart
    from dualfid_robot.config.experiment import Experiment
    from dualfid_robot.config.fits import read_fits
    from dualfid_robot.errors import ConfigError
    from dualfid_robot.export.request import ExportRequest
    from dualfid_robot.onboard.metadata import Metadata
    from dualfid_robot.onboard.runtime import METADATA, SUMS, check_sums
    from dualfid_robot.robots.importer.robot import import_robot
    from dualfid_robot.robots.model import RobotModel
    from dualfid_robot.runs.metrics import read_metrics
    from dualfid_robot.runs.saved_policy import load_policy
    from dualfid_robot.studies.curves import StudyRecord
    from dualfid_robot.studies.plan_file import parse_plan
    from dualfid_robot.train.trainer import Trainer

from damage import is_one_line
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from small import SMALL
from test_robots import URDF
from yaml import YAMLError

from dualfid_robot.config.machine import ASSETS, CONFIG_DIR

USER_ERRORS = (ConfigError, HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError)
PLACE = Path(tempfile.mkdtemp(prefix="guided"))

Reader = tuple[Callable[[bytes], object], list[bytes]]
"""What reads bytes, and valid examples of them."""


def file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A reader of bytes from a reader of files."""

    def reader(content: bytes) -> object:
        path = PLACE / name
        path.write_bytes(content)
        return read(path)

    return reader


def import_and_write(path: Path) -> None:
    import_robot(path).write(PLACE / "out.xml")


def member(archive: bytes, name: str, read: Callable[[Path], object]) -> Reader:
    """A file inside a zip archive, whose sums are made anew: damage is not found before it is read."""
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        contents = {each: whole.read(each) for each in whole.namelist()}
    (found,) = (each for each in contents if each.endswith(name))

    def reader(content: bytes) -> object:
        path = PLACE / "archive"
        with zipfile.ZipFile(path, "w") as made:
            for each, original in contents.items():
                made.writestr(each, content if each == found else original)
        return read(path)

    return reader, [contents[found]]


def checkpoint() -> bytes:
    """A small run's."""
    with hydra_apart():
        trainer = Trainer(Experiment(compose_config(SMALL)))
    trainer.iterate()
    trainer.save(PLACE / "whole.pth")
    trainer.close()
    return (PLACE / "whole.pth").read_bytes()


def export() -> Path:
    """The same run's export."""
    checkpoint()
    dualfid_robot.export.launch.export(PLACE / "whole.pth", ExportRequest(("onnx",), num_envs=2), PLACE / "export")
    return PLACE / "export"


def mesh(suffix: str, example: bytes) -> Reader:
    """A mesh of a URDF."""
    text = URDF.replace('<sphere radius="0.05"/>', f'<mesh filename="mesh.{suffix}"/>')
    (PLACE / "robot.urdf").write_text(text)
    return file(f"mesh.{suffix}", lambda path: import_and_write(PLACE / "robot.urdf")), [example]


def compose(content: bytes) -> None:
    """A setting of the command line."""
    with hydra_apart():
        Experiment(compose_config([*SMALL, content.decode(errors="replace")]))


def parse_yaml_plan(path: Path) -> None:
    settings = OmegaConf.to_container(OmegaConf.load(path))
    parse_plan(settings if isinstance(settings, dict) else {})


def read_study(path: Path) -> None:
    StudyRecord(path.parent)


TETRAHEDRON = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
READERS: dict[str, Callable[[], Reader]] = {
    "checkpoint": lambda: member(checkpoint(), "data.pkl", load_policy),
    "metadata": lambda: (
        lambda content: Metadata.from_json(content.decode(errors="replace"), "policy"),
        [(export() / METADATA).read_bytes()],
    ),
    "sums": lambda: (file(SUMS, lambda path: check_sums(path.parent)), [(export() / SUMS).read_bytes()]),
    "urdf": lambda: (file("robot.urdf", import_and_write), [URDF.encode()]),
    "mjcf": lambda: (file("robot.xml", RobotModel), [(ASSETS / "ant.xml").read_bytes()]),
    "import_mjcf": lambda: (file("robot.xml", import_and_write), [(ASSETS / "cartpole.xml").read_bytes()]),
    "obj": lambda: mesh("obj", TETRAHEDRON),
    "stl": lambda: mesh("stl", b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\n"),
    "plan": lambda: (
        file("plan.yaml", parse_yaml_plan),
        [path.read_bytes() for path in (CONFIG_DIR / "study").glob("*.yaml")],
    ),
    "study": lambda: (file("plan.json", read_study), [b'{"tasks": {}, "methods": [], "gaps": []}']),
    "fit": lambda: (file("Ant.yaml", read_fits), [b"pybullet: {friction: 0.9, substeps: 4}\n"]),
    "metrics": lambda: (file("metrics.jsonl", read_metrics), [b'{"iteration": 1, "return/high": 3.5}\n']),
    "replay": lambda: (
        file("metrics.jsonl", lambda path: replay.Replay(file=str(path), seed=0)),
        [json.dumps({"allocation/rho": 0.5}).encode() + b"\n"],
    ),
    "setting": lambda: (compose, [b"task.env.episodeLength=10", b"allocation=fixed", b"simulator/low=[pybullet]"]),
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        sys.exit(f"{__doc__}\nreaders: {', '.join(READERS)}")
    read, examples = READERS[sys.argv.pop(1)]()
    corpus = PLACE / "corpus"
    corpus.mkdir()
    for number, example in enumerate(examples):
        (corpus / str(number)).write_bytes(example)
    logging.disable()

    def attempt(content: bytes) -> None:
        try:
            read(content)
        except USER_ERRORS as error:
            assert is_one_line(ConfigError(describe(error))), repr(str(error))

    atheris.Setup([*sys.argv, f"-max_len={4 * max(map(len, examples))}", str(corpus)], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
