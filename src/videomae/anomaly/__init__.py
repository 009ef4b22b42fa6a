"""What is unusual in footage: a detector fitted on ordinary footage, without labels."""
