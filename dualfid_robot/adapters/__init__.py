"""Other libraries' interfaces over `PoolVectorEnv`. Each module alone imports its library."""
