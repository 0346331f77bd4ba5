"""What a user asks for: the whole job, a finished run, calibration."""
