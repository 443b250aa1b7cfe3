"""The functions of the gym, by what they are about; `gym.py` makes one class of them."""
