"""What a job is: fields, states, history and layout, all pure."""
