"""Live video: cameras, streams, pipes and files played as live, classified while they come."""
