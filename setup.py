from setuptools import find_packages, setup

GPU = ["warp-lang>=1.15", "mujoco-warp>=4.0"]
PHYSX = ["sapien>=3.0.3"]
GYMNASIUM = ["gymnasium>=1.1"]
EXPORT = ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"]
VIEWER = ["mjviser>=0.0.14"]
STUDY = ["hydra-joblib-launcher>=1.2"]

setup(
    name="dualfid_robot",
    version="0.1.0",
    description="Robot policies trained in two simulators at once",
    packages=find_packages(include=["dualfid_robot*"]),
    package_data={
        "dualfid_robot.conformance": ["assets/*.xml"],
        "dualfid_robot.export.cpp": ["policy.hpp.in"],
        "dualfid_robot.studies": ["*.jinja"],
    },
    python_requires=">=3.11",  # MuJoCo 4 is released for no older one
    install_requires=[
        "torch>=2.9",
        "numpy>=1.26",
        "scipy>=1.11",
        "pyyaml>=6.0",
        "mujoco>=4.0",
        "hydra-core>=1.3.2",
        "omegaconf>=2.3",
        "tensorboard>=2.16",
        "rich>=13.7",
        "jinja2>=3.1",
        "imageio>=2.34",
        "imageio-ffmpeg>=0.5",
        "matplotlib>=3.8",
        # PyPI has no wheel for newer Pythons; there it is the extra below, built from source.
        "pybullet>=3.2.6; python_version < '3.12'",
    ],
    extras_require={
        "pybullet": ["pybullet>=3.2.6"],
        "gpu": GPU,
        "physx": PHYSX,
        "gymnasium": GYMNASIUM,
        "export": EXPORT,  # what play.py and a robot need of it is onnxruntime alone
        "viewer": VIEWER,
        "study": STUDY,
        # Hydra's launchers for other machines: python study.py … hydra/launcher=submitit_slurm, or ray
        "slurm": ["hydra-submitit-launcher>=1.2"],
        "ray": ["hydra-ray-launcher>=1.2"],
        # Every engine and every library that an adapter is for: what is not installed is not tested.
        "test": [
            *("pytest>=8", "hypothesis>=6.100", "mypy>=1.10", "ruff>=0.6", "types-PyYAML", "peft>=0.13"),
            *(*GPU, *PHYSX, *GYMNASIUM, *EXPORT, *VIEWER, *STUDY, "stable-baselines3>=2.4", "rsl-rl-lib>=5.5"),
            *("rliable>=1.2", "pandas<3"),  # what a study's statistics are compared with; newer pandas breaks its arch
            "dm_control>=1.0.30; python_version < '3.13'",  # other authors' robots; labmaze has no wheel for newer ones
        ],
        "benchmark": ["rsl-rl-lib==5.5.1", "envpool==1.2.5", "gymnasium[mujoco]>=1.1"],
    },
)
