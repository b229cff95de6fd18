//! Making the stream smaller with all cores, and reading it again.
//!
//! Gzip is cut into blocks that workers compress at once, each with the end of the block before it as its dictionary, as
//! `pigz` does; what comes out is one standard member. Zstd has workers of its own. The pieces leave by one [`Lane`] per
//! worker, and who takes them ([`Pieces`]) goes round the lanes in the order in which the blocks were given out, so
//! nothing is ever sorted, and every lane is bounded.
//!
//! A newcomer would take a closed lane for the end; a worker that broke closes its lane too, so the end is said.
//!
//! Memory decides the parameters. Each worker of zstd has tables and a job; by its own choice at level 19 that would be
//! hundreds of megabytes. So there are at most four workers with jobs of 2 MiB, and from level 9 on two, with tables
//! that are capped at what level 9 needs and a shorter look back into the job before. A stream at level 3 then takes
//! 22 MB and one at level 19 36 MB, at any length, and the files are within one per cent of what `zstd` makes.

use std::{
    io::{self, Read, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use bytes::Bytes;
use flate2::{Compress, Crc, FlushCompress, read::MultiGzDecoder};
use zstd::zstd_safe::CParameter;

use crate::record::{Compression, CompressionMethod};

/// What is read from the tool at once, and what a worker of gzip gets.
pub(super) const BLOCK: usize = 128 * 1024;
/// How far deflate looks back.
const WINDOW: usize = 32 * 1024;
/// How many pieces wait in a lane.
const DEPTH: usize = 4;
/// No more workers than this, however many cores there are.
const WORKERS: usize = 4;
/// What a worker of zstd gets.
const ZSTD_JOB: u32 = 1 << 20;
/// From this level on zstd's tables are capped.
const ZSTD_LARGE: u8 = 9;

/// Where blocks of plain text go in.
pub(super) enum Compressor {
    None(Lane),
    Gzip(Gzip),
    Zstd(Box<zstd::Encoder<'static, Lane>>),
}

impl Compressor {
    /// A compressor, and where its pieces come out.
    pub(super) fn start(compression: Compression) -> io::Result<(Self, Pieces)> {
        if compression.method == CompressionMethod::Gzip {
            let (gzip, lanes) = Gzip::start(compression.level)?;
            return Ok((Self::Gzip(gzip), Pieces { lanes, next: 0 }));
        }
        let (lane, pieces) = sync_channel(DEPTH);
        let pieces = Pieces { lanes: vec![pieces], next: 0 };
        let compressor = match compression.method {
            CompressionMethod::Zstd => Self::Zstd(Box::new(zstd_encoder(Lane(lane), compression.level)?)),
            _ => Self::None(Lane(lane)),
        };
        Ok((compressor, pieces))
    }

    /// Takes the next block, at most [`BLOCK`] long; all but the last should be full.
    pub(super) fn write(&mut self, block: Vec<u8>) -> io::Result<()> {
        match self {
            Self::None(lane) => lane.send(Piece::Block(block)),
            Self::Gzip(gzip) => gzip.write(block),
            Self::Zstd(encoder) => encoder.write_all(&block),
        }
    }

    /// Says that this was all.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::None(lane) => lane.send(Piece::End),
            Self::Gzip(gzip) => gzip.finish(),
            Self::Zstd(encoder) => encoder.finish()?.send(Piece::End),
        }
    }
}

fn zstd_encoder(lane: Lane, level: u8) -> io::Result<zstd::Encoder<'static, Lane>> {
    let mut encoder = zstd::Encoder::new(lane, i32::from(level))?;
    encoder.include_checksum(true)?;
    let is_large = level >= ZSTD_LARGE;
    encoder.multithread(workers().min(if is_large { 2 } else { WORKERS }) as u32)?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
    if is_large {
        use CParameter::{ChainLog, HashLog, OverlapSizeLog, WindowLog};
        for parameter in [WindowLog(21), ChainLog(20), HashLog(20), OverlapSizeLog(7)] {
            encoder.set_parameter(parameter)?;
        }
    }
    Ok(encoder)
}

fn workers() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().min(WORKERS))
}

/// What goes along a lane.
enum Piece {
    Block(Vec<u8>),
    End,
}

/// The way from one worker to who takes the pieces.
pub(super) struct Lane(SyncSender<io::Result<Piece>>);

impl Lane {
    fn send(&self, piece: Piece) -> io::Result<()> {
        self.0.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Lane {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(Piece::Block(bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the pieces come out, in order.
pub(super) struct Pieces {
    lanes: Vec<Receiver<io::Result<Piece>>>,
    next: usize,
}

impl Pieces {
    /// The next piece; none at the end. A lane that closed before the end was said is an unexpected end of file.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let piece = self.lanes[self.next].recv().unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()))?;
        self.next = (self.next + 1) % self.lanes.len();
        match piece {
            Piece::Block(bytes) => Ok(Some(bytes)),
            Piece::End => Ok(None),
        }
    }
}

/// What a worker of gzip is asked to do.
enum Job {
    Deflate { block: Bytes, dictionary: Bytes },
    PassOn(Piece),
}

/// Gzip by several workers.
pub(super) struct Gzip {
    workers: Vec<SyncSender<Job>>,
    next: usize,
    crc: Crc,
    dictionary: Bytes,
}

impl Gzip {
    fn start(level: u8) -> io::Result<(Self, Vec<Receiver<io::Result<Piece>>>)> {
        // zlib-rs makes level 1 fast by giving up a third of the ratio; nobody who writes `gzip:1` means that.
        let level = flate2::Compression::new(u32::from(level.max(2)));
        let (mut workers, mut lanes) = (Vec::new(), Vec::new());
        for _ in 0..self::workers() {
            let (jobs, inbox) = sync_channel(DEPTH / 2);
            let (lane, pieces) = sync_channel(DEPTH / 2);
            thread::Builder::new().name("backstop-gzip".to_owned()).spawn(move || deflate_all(&inbox, &lane, level))?;
            workers.push(jobs);
            lanes.push(pieces);
        }
        let mut gzip = Self { workers, next: 0, crc: Crc::new(), dictionary: Bytes::new() };
        // No name and no time, so that the same content gives the same file; 255 is "no system in particular".
        gzip.give(Job::PassOn(Piece::Block(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])))?;
        Ok((gzip, lanes))
    }

    fn write(&mut self, block: Vec<u8>) -> io::Result<()> {
        self.crc.update(&block);
        let block = Bytes::from(block);
        let next = block.slice(block.len().saturating_sub(WINDOW)..);
        let dictionary = std::mem::replace(&mut self.dictionary, next);
        self.give(Job::Deflate { block, dictionary })
    }

    /// Every block ended at a byte's border and was not the last one, so an empty last block closes the member.
    fn finish(mut self) -> io::Result<()> {
        let mut trailer = vec![3, 0];
        trailer.extend(self.crc.sum().to_le_bytes());
        trailer.extend(self.crc.amount().to_le_bytes());
        self.give(Job::PassOn(Piece::Block(trailer)))?;
        self.give(Job::PassOn(Piece::End))
    }

    fn give(&mut self, job: Job) -> io::Result<()> {
        let given = self.workers[self.next].send(job);
        self.next = (self.next + 1) % self.workers.len();
        given.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn deflate_all(jobs: &Receiver<Job>, lane: &SyncSender<io::Result<Piece>>, level: flate2::Compression) {
    let mut compress = Compress::new(level, false);
    for job in jobs {
        let piece = match job {
            Job::PassOn(piece) => Ok(piece),
            Job::Deflate { block, dictionary } => deflate(&mut compress, &block, &dictionary).map(Piece::Block),
        };
        if lane.send(piece).is_err() {
            return;
        }
    }
}

fn deflate(compress: &mut Compress, block: &[u8], dictionary: &[u8]) -> io::Result<Vec<u8>> {
    compress.reset();
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary)?;
    }
    let mut out = Vec::with_capacity(block.len() / 2 + 64);
    // A flush is done when it leaves room in what it writes to.
    loop {
        let taken = compress.total_in() as usize;
        compress.compress_vec(&block[taken..], &mut out, FlushCompress::Sync)?;
        if compress.total_in() as usize == block.len() && out.len() < out.capacity() {
            return Ok(out);
        }
        out.reserve(block.len() / 2 + 64);
    }
}

/// Reads what was compressed.
pub(super) fn decompressor<'a>(compression: Compression, from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression.method {
        CompressionMethod::None => Box::new(from),
        CompressionMethod::Gzip => Box::new(MultiGzDecoder::new(from)),
        CompressionMethod::Zstd => Box::new(zstd::Decoder::new(from)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::testing::{noise, tool, words};

    fn compressed(text: &str, content: &[u8]) -> Vec<u8> {
        let (mut compressor, mut pieces) = Compressor::start(text.parse().unwrap()).unwrap();
        let content = content.to_vec();
        let giver = thread::spawn(move || {
            content.chunks(BLOCK).for_each(|block| compressor.write(block.to_vec()).unwrap());
            compressor.finish().unwrap();
        });
        let mut out = Vec::new();
        while let Some(piece) = pieces.next().unwrap() {
            out.extend(piece);
        }
        giver.join().unwrap();
        out
    }

    fn contents() -> Vec<Vec<u8>> {
        let lengths = [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77];
        lengths.iter().flat_map(|length| [words(*length), noise(*length)]).chain([vec![0; 2 * BLOCK]]).collect()
    }

    #[tokio::test]
    async fn the_standard_tools_read_it() {
        for (compression, tools) in [
            ("gzip:1", vec!["gzip -dc"]),
            ("gzip:6", vec!["gzip -dc", "pigz -dc"]),
            ("zstd:3", vec!["zstd -dc"]),
            ("none", vec!["cat"]),
        ] {
            for content in contents() {
                let stored = compressed(compression, &content);
                for command in &tools {
                    let read = tool(&format!("{command} <\"$1\""), &stored).await;
                    assert!(read == content, "{command} reads {} bytes of {compression} otherwise", content.len());
                }
            }
        }
    }

    #[test]
    fn the_highest_levels_read_back_equal() {
        for level in ["zstd:9", "zstd:19"] {
            let (content, mut read) = (words(3 * BLOCK), Vec::new());
            let stored = compressed(level, &content);
            decompressor(level.parse().unwrap(), &stored[..]).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == content, "{level}");
        }
    }

    #[test]
    fn gzip_in_blocks_is_hardly_larger_than_gzip_at_once() {
        let content = words(6 * BLOCK);
        let mut whole = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        whole.write_all(&content).unwrap();
        let (whole, blocks) = (whole.finish().unwrap().len(), compressed("gzip:6", &content).len());
        assert!(blocks < whole + whole / 50, "{blocks} and {whole}");
    }

    #[test]
    fn the_same_content_gives_the_same_file() {
        let content = words(3 * BLOCK + 5);
        for compression in ["gzip:6", "zstd:3"] {
            assert!(compressed(compression, &content) == compressed(compression, &content), "{compression}");
        }
    }

    #[test]
    fn a_compressor_that_is_dropped_is_no_end() {
        for compression in ["none", "gzip:6", "zstd:3"] {
            let (mut compressor, mut pieces) = Compressor::start(compression.parse().unwrap()).unwrap();
            compressor.write(noise(BLOCK)).unwrap();
            drop(compressor);
            let error = loop {
                match pieces.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{compression}: it looks whole"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{compression}");
        }
    }
}
