"""What `import isaacgym` gives: the modules of that package that task code uses, all of which `provide` imports."""
