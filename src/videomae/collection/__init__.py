"""Collections of videos as a whole: checked before training, and prepared for it."""
