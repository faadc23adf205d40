"""From a configuration to trained networks: settings, experiment, loop, checkpoints, workdir, devices."""
