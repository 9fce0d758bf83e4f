"""One file a question; results/ holds what was measured, with versions and machine."""
