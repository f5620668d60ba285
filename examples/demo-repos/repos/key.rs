//! The key the demo's packages are signed with.
//!
//! It is derived from a seed that anybody can read here, so it proves nothing about who made a package:
//! it exists so that signature checking has something to check. Never trust it outside the demo.

use anyhow::{Context, Result};
use pgp::composed::{ArmorOptions, KeyType, SignedKeyDetails, SignedPublicKey};
use pgp::packet::{
    KeyFlags, PacketTrait, PubKeyInner, PublicKey, SecretKey, SignatureConfig, SignatureType, Subpacket,
    SubpacketData, UserId,
};
use pgp::types::{KeyDetails, KeyVersion, Password, SignedUser, SigningKey, Timestamp};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rpm::signature::pgp::Signer;

const SEED: [u8; 32] = *b"strata's demo key: trust nothing";
const USER: &str = "strata demo repositories (public test key) <demo@strata.invalid>";

/// 2024-11-01T00:00:00Z, before the first package.
const CREATED: u32 = 1_730_419_200;

/// Signs packages.
pub fn signer() -> Result<Signer> {
    Signer::new(secret_key()?).context("preparing the demo key")
}

/// The public key, in the form rpm imports.
pub fn armored_public_key() -> Result<String> {
    let secret = secret_key()?;
    let public = secret.public_key().clone();
    let user = UserId::from_str(Default::default(), USER)?;

    let mut config = SignatureConfig::v4(SignatureType::CertPositive, secret.algorithm(), secret.hash_alg());
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(true);
    // The crate's own key builder stamps the certification with the clock.
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::from_secs(CREATED)))?,
        Subpacket::regular(SubpacketData::IssuerFingerprint(secret.fingerprint()))?,
        Subpacket::regular(SubpacketData::KeyFlags(flags))?,
        Subpacket::regular(SubpacketData::IsPrimary(true))?,
    ];
    config.unhashed_subpackets =
        vec![Subpacket::regular(SubpacketData::IssuerKeyId(secret.legacy_key_id()))?];
    let certification = config.sign_certification(&secret, &public, &Password::empty(), user.tag(), &user)?;

    let details =
        SignedKeyDetails::new(vec![], vec![], vec![SignedUser::new(user, vec![certification])], vec![]);
    let key = SignedPublicKey::new(public, details, vec![]);
    key.to_armored_string(ArmorOptions::default()).context("armouring the demo key")
}

/// Ed25519 in the form that predates RFC 9580, the only one rpm 4 reads.
fn secret_key() -> Result<SecretKey> {
    let kind = KeyType::Ed25519Legacy;
    let (public, secret) = kind.generate(ChaCha20Rng::from_seed(SEED))?;
    let inner = PubKeyInner::new(KeyVersion::V4, kind.to_alg(), Timestamp::from_secs(CREATED), None, public)?;
    SecretKey::new(PublicKey::from_inner(inner)?, secret).context("deriving the demo key")
}
