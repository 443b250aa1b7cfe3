"""Export a checkpoint for robots and players: `python export.py checkpoint=runs/... format=onnx,torchscript,cpp`."""

from dualfid_robot.cli import export

if __name__ == "__main__":
    export()
