"""Runtime plugin for Gemini: AI Studio by key, Vertex AI by service account."""
