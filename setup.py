import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "dualfid_robot" / "__init__.py").read_text()
GPU = ["warp-lang>=1.15", "mujoco-warp>=4.0,<5"]
PHYSX = ["sapien>=3.0.3,<4"]
GYMNASIUM = ["gymnasium>=1.1,<2"]
ONNXRUNTIME = ["onnxruntime>=1.20,<2"]
EXPORT = ["onnx>=1.17,<2", "onnxscript>=0.5,<1", *ONNXRUNTIME]
VIEWER = ["mjviser>=0.0.14"]
WANDB = ["wandb>=0.17"]
VIDEO = ["imageio>=2.34,<3", "imageio-ffmpeg>=0.5"]
PLOTS = ["matplotlib>=3.8,<4"]
IMPORT = ["trimesh>=4", "pycollada>=0.8"]
DOCS = ["sphinx>=8.2,<10", "myst-nb>=1.3,<2", "furo>=2024.8"]
STUDY = ["hydra-joblib-launcher>=1.2,<2", "jinja2>=3.1,<4", *PLOTS]

shutil.rmtree(HERE / "build", ignore_errors=True)  # a file that has gone since an earlier build would come along

setup(
    name="dualfid_robot",
    version=re.findall(r'^__version__ = "(.*)"$', (HERE / "dualfid_robot" / "__init__.py").read_text(), re.MULTILINE)[
        0
    ],
    description="Robot policies trained in two simulators at once",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    author="dualfid_robot contributors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["reinforcement learning", "robotics", "multi-fidelity", "PPO", "LoRA", "MuJoCo", "PyBullet", "PhysX"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    # tasks, cfg and assets are links to the folders at the top; a wheel holds their files.
    packages=find_packages(include=["dualfid_robot*"]),
    package_data={
        "dualfid_robot": [
            "py.typed",
            "cfg/**/*.yaml",
            "assets/*.xml",
            "assets/*.png",
            "assets/LICENSE.md",
            "assets/policies/*/*",
        ],
        "dualfid_robot.export.cpp": ["policy.hpp.in"],
        "dualfid_robot.studies": ["*.jinja"],
    },
    entry_points={"console_scripts": ["dualfid = dualfid_robot.cli:main"]},
    python_requires=">=3.11",  # MuJoCo 4 is released for no older one
    # What training needs, and evaluation of what was trained (SciPy, for its intervals).
    install_requires=[
        "torch>=2.9,<3",
        "numpy>=1.26,<3",
        "numba>=0.61",  # the activation in bfloat16 in one pass over memory
        "scipy>=1.11,<2",
        "pyyaml>=6.0,<7",
        "mujoco>=4.0,<5",
        "hydra-core>=1.3.2,<1.4",
        "omegaconf>=2.3,<2.4",
        "tensorboard>=2.16,<3",
        "rich>=13.7,<15",
        # PyPI has no wheel for newer Pythons; there it is the extra below, built from source.
        "pybullet>=3.2.6,<4; python_version < '3.12'",
    ],
    extras_require={
        "pybullet": ["pybullet>=3.2.6,<4"],
        "gpu": GPU,
        "physx": PHYSX,
        "gymnasium": GYMNASIUM,
        "export": EXPORT,  # what a robot needs of it is onnxruntime alone
        "viewer": VIEWER,
        "video": VIDEO,  # capture_video=True, and play.py's video=…
        "play": [*ONNXRUNTIME, *VIEWER, *VIDEO],  # all that play.py needs
        "wandb": WANDB,  # wandb_activate=True
        "plots": PLOTS,  # transfer.py's curves
        "import": IMPORT,  # import_robot.py: meshes in formats that MuJoCo does not read
        "study": STUDY,
        "docs": DOCS,  # the documentation as a site: make docs
        # Hydra's launchers for other machines: dualfid study … hydra/launcher=submitit_slurm, or ray
        "slurm": ["hydra-submitit-launcher>=1.2"],
        "ray": ["hydra-ray-launcher>=1.2"],
        # Every engine and every library that an adapter is for: what is not installed is not tested.
        "test": [
            *("pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "mypy>=1.10", "ruff>=0.6", "types-PyYAML"),
            "peft>=0.13",
            *(
                *GPU,
                *PHYSX,
                *GYMNASIUM,
                *EXPORT,
                *VIEWER,
                *VIDEO,
                *WANDB,
                *STUDY,
                *IMPORT,
                *DOCS,
                "stable-baselines3>=2.4",
                "rsl-rl-lib>=5.5",
            ),
            *("rliable>=1.2", "pandas<3"),  # what a study's statistics are compared with; newer pandas breaks its arch
            "dm_control>=1.0.30; python_version < '3.13'",  # other authors' robots; labmaze has no wheel for newer ones
            *("nbclient>=0.10", "ipykernel>=6.29"),  # a test runs the notebook
            "setuptools>=70.1",  # a test builds the wheel
        ],
        "benchmark": ["rsl-rl-lib==5.5.1", "envpool==1.2.5", "gymnasium[mujoco]>=1.1", *PLOTS],
    },
)
