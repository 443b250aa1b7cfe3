"""Make an MJCF to train with from a URDF, or from another MJCF: `python import_robot.py robot.urdf out.xml`."""

from dualfid_robot.cli import import_robot

if __name__ == "__main__":
    import_robot()
