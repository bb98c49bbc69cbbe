"""What the console command can do: one file a command, each with `run(said) -> exit status`. Imported when asked for."""
