"""Play an exported policy in any simulator, by its files alone: `python play.py policy=export/policy.onnx`."""

from dualfid_robot.cli import play

if __name__ == "__main__":
    play()
