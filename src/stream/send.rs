//! The way out: a thread reads the tool, workers compress, a thread encrypts, tasks upload.
//!
//! Everything between them is bounded, so that a slow storage makes the tool wait. A part that ends early closes its
//! queues; the parts around it notice and end too, and the first cause is what is told. A newcomer would wait for the
//! reader when somebody stops; it may be stuck in a read that ends only with the tool.

use std::{
    future::Future,
    io::{self, Read, Write},
};

use bytes::BytesMut;

use super::{
    Error, Inspect, Meter, Pending, Recipe, Sealer,
    compress::{BLOCK, Compressor, Pieces},
    encrypt::Sealing,
    fan_out::{FanOut, Outlets, Sink},
    tally::Tally,
    thread::{ended, start},
};
use crate::{process::Stop, record::Digest};

/// What goes to an upload at once.
const CHUNK: usize = 512 * 1024;

/// What the reader knows at the end: the digest, and what the inspector found wrong.
type Raw = (Digest, Option<String>);
/// What the sealing thread knows at the end: the digest, and the HMAC.
type Sealed = (Digest, Option<String>);

/// See [`super::store`].
pub(super) async fn store<S: Sink>(
    source: impl Read + Send + 'static,
    recipe: &Recipe,
    inspect: Option<Box<dyn Inspect>>,
    uploads: Vec<(String, S)>,
    meter: &Meter,
    stop: &Stop,
) -> Result<Pending<S>, Error> {
    let (mut fan_out, outlets) = FanOut::start(uploads);
    let sending = send(source, recipe, inspect, outlets, meter);
    let sent = tokio::select! {
        biased;
        () = stop.stopped() => Err(Error::Stopped),
        sent = until_written(sending, &mut fan_out) => sent,
    };
    match sent {
        Ok(((raw, complaint), (stored, hmac))) => {
            Ok(Pending { raw, stored, hmac, complaint, uploads: fan_out.written() })
        }
        Err(error) => match fan_out.discard().await {
            Some(first) if is_consequence(&error) => Err(Error::NoStorage(first)),
            _ => Err(error),
        },
    }
}

async fn until_written<S: Sink>(
    sending: impl Future<Output = Result<(Raw, Sealed), Error>>,
    fan_out: &mut FanOut<S>,
) -> Result<(Raw, Sealed), Error> {
    let sent = tokio::select! {
        sent = sending => sent?,
        () = fan_out.nobody_is_left() => return Err(nobody_is_left()),
    };
    fan_out.end().await;
    if fan_out.is_anybody_left() { Ok(sent) } else { Err(nobody_is_left()) }
}

async fn send(
    source: impl Read + Send + 'static,
    recipe: &Recipe,
    inspect: Option<Box<dyn Inspect>>,
    outlets: Outlets,
    meter: &Meter,
) -> Result<(Raw, Sealed), Error> {
    let (compressor, pieces) = Compressor::start(recipe.compression).map_err(compressing)?;
    let chunks = Chunks::new(outlets, meter.clone());
    let (sealer, meter) = (recipe.sealer.clone(), meter.clone());
    let sealing = start("backstop-seal", move || seal(pieces, sealer.as_ref(), chunks))?;
    let reading = start("backstop-read", move || read(source, inspect, compressor, &meter))?;
    match ended(sealing).await {
        Err(error) if !is_unfinished(&error) => Err(error),
        // The reader has ended, or the pieces would not have: it says why.
        sealed => ended(reading).await.and_then(|raw| Ok((raw, sealed?))),
    }
}

fn read(
    mut source: impl Read,
    mut inspect: Option<Box<dyn Inspect>>,
    mut compressor: Compressor,
    meter: &Meter,
) -> Result<Raw, Error> {
    let mut tally = Tally::default();
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        source.by_ref().take(BLOCK as u64).read_to_end(&mut block).map_err(Error::Read)?;
        if block.is_empty() {
            break;
        }
        meter.add_raw(block.len());
        tally.see(&block);
        if let Some(inspect) = &mut inspect {
            inspect.see(&block);
        }
        compressor.write(block).map_err(compressing)?;
    }
    compressor.finish().map_err(compressing)?;
    Ok((tally.digest(), inspect.and_then(|inspect| inspect.end().err())))
}

fn seal(mut pieces: Pieces, sealer: Option<&Sealer>, chunks: Chunks) -> Result<Sealed, Error> {
    let mut sealing = Sealing::start(sealer, chunks).map_err(encrypting)?;
    while let Some(piece) = pieces.next().map_err(compressing)? {
        sealing.write(piece).map_err(encrypting)?;
    }
    let (chunks, hmac) = sealing.finish().map_err(encrypting)?;
    Ok((chunks.finish().map_err(encrypting)?, hmac))
}

fn compressing(source: io::Error) -> Error {
    Error::Transform { what: "compressing", source }
}

fn encrypting(source: io::Error) -> Error {
    Error::Transform { what: "encrypting", source }
}

fn nobody_is_left() -> Error {
    encrypting(io::ErrorKind::BrokenPipe.into())
}

/// Whether a part failed because the one after it had ended.
fn is_consequence(error: &Error) -> bool {
    matches!(error, Error::Transform { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether the pieces ended without their end being said.
fn is_unfinished(error: &Error) -> bool {
    matches!(error, Error::Transform { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof)
}

/// Cuts what is written into chunks, counts them and gives them to the uploads.
struct Chunks {
    chunk: BytesMut,
    tally: Tally,
    outlets: Outlets,
    meter: Meter,
}

impl Chunks {
    fn new(outlets: Outlets, meter: Meter) -> Self {
        Self { chunk: BytesMut::with_capacity(CHUNK), tally: Tally::default(), outlets, meter }
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK)).freeze();
        self.meter.add_stored(chunk.len());
        if self.outlets.send(&chunk) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn finish(mut self) -> io::Result<Digest> {
        if !self.chunk.is_empty() {
            self.send()?;
        }
        Ok(self.tally.digest())
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = &bytes[..bytes.len().min(CHUNK - self.chunk.len())];
        self.tally.see(taken);
        self.chunk.extend_from_slice(taken);
        if self.chunk.len() == CHUNK {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
