//! stream_error
