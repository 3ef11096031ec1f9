"""What a stranger's emitter is tested with: subclass a suite, and give its fixtures."""
