"""OpenAI's dialect: requests, answers, chunks, errors; pure."""
