"""Other libraries' interfaces over `PoolVectorEnv`; each module imports its library, and nothing else does."""
