"""What every room needs and knows nothing of detectors: errors, types of settings, files, sums over processes."""
