"""From files to a `Dataset`: reading, quality, duplicates, folds, augmentation; sources, synthetic images."""
