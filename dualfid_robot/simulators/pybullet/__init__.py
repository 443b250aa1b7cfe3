"""Bullet, through PyBullet, in processes of its own."""
