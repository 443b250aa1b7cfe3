"""`python -m dualfid_robot train …`, as torchrun wants it."""

from dualfid_robot.cli import main

if __name__ == "__main__":
    main()
