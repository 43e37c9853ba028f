"""Times: how they are written, their spacing, calendars."""
