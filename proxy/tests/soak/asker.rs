//! Who asks: a thread in a network namespace, or a process there that is in the pods' cgroup as
//! well. It takes questions from a socket, a line each, asks many at a time and tells what came of
//! each: the address of the endpoint that answered, or the name of an error.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    io::{Error, ErrorKind, Result, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    os::unix::net::UnixStream as StdUnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    rc::Rc,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream, UdpSocket, UnixStream},
    runtime,
    sync::mpsc,
    task::LocalSet,
    time::timeout,
};

use crate::netns::{self, Netns};

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// A connection for one question.
    Tcp,
    /// A connected socket for one question.
    Udp,
    /// The same, with a datagram of several fragments.
    UdpLarge,
    /// A socket without a peer, for one question.
    UdpSend,
    /// A connection that stays, by its number.
    KeptTcp(usize),
    /// A connected socket that stays, by its number.
    KeptUdp(usize),
}

impl Manner {
    fn text(self) -> String {
        match self {
            Self::Tcp => "tcp 0".to_owned(),
            Self::Udp => "udp 0".to_owned(),
            Self::UdpLarge => "large 0".to_owned(),
            Self::UdpSend => "send 0".to_owned(),
            Self::KeptTcp(slot) => format!("ktcp {slot}"),
            Self::KeptUdp(slot) => format!("kudp {slot}"),
        }
    }

    fn parse(name: &str, slot: &str) -> Self {
        let slot = slot.parse().unwrap();
        match name {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "large" => Self::UdpLarge,
            "send" => Self::UdpSend,
            "ktcp" => Self::KeptTcp(slot),
            "kudp" => Self::KeptUdp(slot),
            _ => panic!("{name} is no manner of asking"),
        }
    }
}

/// The line that closes the connections that stay.
pub const CLOSE: &str = "close";

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub id: u64,
    pub manner: Manner,
    pub to: SocketAddr,
    pub patience: Duration,
}

impl Question {
    pub fn line(&self) -> String {
        let Self { id, manner, to, patience } = self;
        format!("{id} {} {to} {}\n", manner.text(), patience.as_millis())
    }

    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, name, slot, to, patience] = words[..] else { panic!("{line}") };
        Self {
            id: id.parse().unwrap(),
            manner: Manner::parse(name, slot),
            to: to.parse().unwrap(),
            patience: Duration::from_millis(patience.parse().unwrap()),
        }
    }
}

/// An asker; a process ends with this value, a thread with its socket.
#[derive(Debug)]
pub struct Asker {
    process: Option<Pid>,
}

impl Asker {
    /// A thread of this process, which no hook of the pods' cgroup sees.
    pub fn thread(netns: &Netns) -> (Self, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        let name = netns.name().to_owned();
        thread::spawn(move || {
            netns::enter(&name);
            serve(theirs);
        });
        (Self { process: None }, ours)
    }

    /// A process in a cgroup.
    pub fn process(netns: &Netns, cgroup: &Path) -> (Self, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        let procs = fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"));
        let mut procs = procs.unwrap();
        // SAFETY: the child makes one runtime without further threads, allocates (glibc keeps that
        // usable), talks over sockets and leaves with `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => (Self { process: Some(child) }, ours),
            ForkResult::Child => {
                drop(ours);
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    procs.write_all(b"0").unwrap();
                    netns::enter(netns.name());
                    serve(theirs);
                }));
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // A thread ends with its socket.
        if let Some(pid) = self.process {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

/// What outlives a question.
struct Kept {
    /// Sockets that stay, those in use apart.
    connections: HashMap<usize, BufReader<TcpStream>>,
    flows: HashMap<usize, UdpSocket>,
    /// The next port to ask from: a port that is used again within minutes would belong to the flow
    /// of an earlier question, which an earlier policy let through.
    port: u16,
}

impl Kept {
    /// A socket from the next port that is free.
    fn bind<T>(&mut self, to: SocketAddr, bind: impl Fn(SocketAddr) -> Result<T>) -> Result<T> {
        loop {
            let port = self.port;
            self.port = if port == PORTS.1 { PORTS.0 } else { port + 1 };
            match bind(SocketAddr::new(any(to), port)) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
    }
}

/// More than two fragments.
const LARGE: usize = 4000;

/// Where ports begin and end that sockets get by themselves.
const PORTS: (u16, u16) = (32_768, 60_999);

fn serve(socket: StdUnixStream) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        socket.set_nonblocking(true).unwrap();
        let (questions, mut answers) = UnixStream::from_std(socket).unwrap().into_split();
        let mut questions = BufReader::new(questions).lines();
        let (sender, mut results) = mpsc::unbounded_channel::<String>();
        tokio::task::spawn_local(async move {
            while let Some(line) = results.recv().await {
                if answers.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let kept = Rc::new(RefCell::new(Kept {
            connections: HashMap::new(),
            flows: HashMap::new(),
            port: PORTS.0,
        }));
        while let Ok(Some(line)) = questions.next_line().await {
            if line == CLOSE {
                kept.borrow_mut().connections.clear();
                continue;
            }
            let (kept, sender) = (Rc::clone(&kept), sender.clone());
            tokio::task::spawn_local(async move {
                let question = Question::parse(&line);
                let result = timeout(question.patience, ask(&question, &kept)).await;
                let result = result.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
                let text = result.map_or_else(|error| error_name(&error), |ip| ip.to_string());
                let _ = sender.send(format!("{} {text}\n", question.id));
            });
        }
    });
}

/// As C programs know it, or as Rust does.
fn error_name(error: &Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => format!("{:?}", error.kind()),
    }
}

async fn ask(question: &Question, kept: &RefCell<Kept>) -> Result<IpAddr> {
    let Question { id, manner, to, .. } = *question;
    match manner {
        Manner::Tcp => over_connection(&mut connect(to, kept).await?, id).await,
        Manner::Udp => over_flow(&flow(to, kept).await?, id, 0).await,
        Manner::UdpLarge => over_flow(&flow(to, kept).await?, id, LARGE).await,
        Manner::UdpSend => unconnected(to, id, kept).await,
        Manner::KeptTcp(slot) => {
            let known = kept.borrow_mut().connections.remove(&slot);
            let mut connection = match known {
                Some(connection) => connection,
                None => connect(to, kept).await?,
            };
            let result = over_connection(&mut connection, id).await;
            if result.is_ok() {
                kept.borrow_mut().connections.insert(slot, connection);
            }
            result
        }
        Manner::KeptUdp(slot) => {
            let known = kept.borrow_mut().flows.remove(&slot);
            let socket = match known {
                Some(socket) => socket,
                None => flow(to, kept).await?,
            };
            let result = over_flow(&socket, id, 0).await;
            if result.is_ok() {
                kept.borrow_mut().flows.insert(slot, socket);
            }
            result
        }
    }
}

async fn connect(to: SocketAddr, kept: &RefCell<Kept>) -> Result<BufReader<TcpStream>> {
    let socket = kept.borrow_mut().bind(to, |from| {
        let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(from).map(|()| socket)
    })?;
    Ok(BufReader::new(socket.connect(to).await?))
}

async fn over_connection(stream: &mut BufReader<TcpStream>, id: u64) -> Result<IpAddr> {
    stream.get_mut().write_all(format!("{id}\n").as_bytes()).await?;
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    understood(&line, id).unwrap_or_else(|| Err(ErrorKind::InvalidData.into()))
}

/// The answer, if it is one to this question.
fn understood(text: &str, id: u64) -> Option<Result<IpAddr>> {
    let mut words = text.split_whitespace();
    (words.next() == Some(&id.to_string())).then(|| {
        let ip = words.next().and_then(|word| word.parse().ok());
        ip.ok_or_else(|| ErrorKind::InvalidData.into())
    })
}

fn any(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn unconnected_socket(to: SocketAddr, kept: &RefCell<Kept>) -> Result<UdpSocket> {
    let socket = kept.borrow_mut().bind(to, StdUdpSocket::bind)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

async fn flow(to: SocketAddr, kept: &RefCell<Kept>) -> Result<UdpSocket> {
    let socket = unconnected_socket(to, kept)?;
    socket.connect(to).await?;
    Ok(socket)
}

fn datagram(id: u64, size: usize) -> Vec<u8> {
    let mut datagram = format!("{id} ").into_bytes();
    datagram.resize(size.max(datagram.len()), b'.');
    datagram
}

/// Answers to earlier questions, late as they are, are passed over.
async fn over_flow(socket: &UdpSocket, id: u64, size: usize) -> Result<IpAddr> {
    socket.send(&datagram(id, size)).await?;
    let mut buffer = vec![0; 65_536];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if let Some(answer) = understood(&String::from_utf8_lossy(&buffer[..len]), id) {
            return if len < size { Err(ErrorKind::UnexpectedEof.into()) } else { answer };
        }
    }
}

async fn unconnected(to: SocketAddr, id: u64, kept: &RefCell<Kept>) -> Result<IpAddr> {
    let socket = unconnected_socket(to, kept)?;
    socket.send_to(&datagram(id, 0), to).await?;
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).await?;
    if from != to {
        // The socket would not know this sender.
        return Err(ErrorKind::AddrNotAvailable.into());
    }
    understood(&String::from_utf8_lossy(&buffer[..len]), id)
        .unwrap_or_else(|| Err(ErrorKind::InvalidData.into()))
}
