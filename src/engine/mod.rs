//! The model host.
mod request;
pub use request::{Answer, Chunking, EncodedChunk, EncodedText, Prediction, Request, Work};
