"""All tables of the first version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table('accounts',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('username', sa.String(length=150), nullable=False),
    sa.Column('email', sa.String(length=254), nullable=False),
    sa.Column('full_name', sa.String(length=254), nullable=False),
    sa.Column('home', sa.String(length=150), nullable=False),
    sa.Column('password_hash', sa.String(length=256), nullable=True),
    sa.Column('token_hash', sa.String(length=64), nullable=False),
    sa.Column('token_generation', sa.BigInteger(), nullable=False),
    sa.Column('operator', sa.Boolean(), nullable=False),
    sa.Column('registry_version', sa.BigInteger(), nullable=False),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('home'),
    sa.UniqueConstraint('token_hash'),
    sa.UniqueConstraint('username'),
    sqlite_autoincrement=True
    )
    op.create_table('leases',
    sa.Column('domain', sa.String(length=255), nullable=False),
    sa.Column('holder', sa.String(length=100), nullable=False),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('expires', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('domain')
    )
    op.create_table('outbox',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('topic', sa.String(length=64), nullable=False),
    sa.Column('subject_id', sa.BigInteger(), nullable=False),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id'),
    sqlite_autoincrement=True
    )
    op.create_table('statics',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('key', sa.String(length=255), nullable=False),
    sa.Column('content_type', sa.String(length=100), nullable=False),
    sa.Column('filename', sa.String(length=255), nullable=False),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.Column('expires', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id'),
    sqlite_autoincrement=True
    )
    op.create_index('ix_statics_expires', 'statics', ['expires'], unique=False)
    op.create_table('pictures',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('account_id', ID, nullable=False),
    sa.Column('pixel_hash', sa.String(length=64), nullable=False),
    sa.Column('width', sa.BigInteger(), nullable=False),
    sa.Column('height', sa.BigInteger(), nullable=False),
    sa.Column('credit', sa.Text(), nullable=True),
    sa.Column('fingerprint_key', sa.String(length=255), nullable=False),
    sa.Column('preview_id', ID, nullable=False),
    sa.Column('thumbnail_id', ID, nullable=False),
    sa.Column('version', sa.BigInteger(), nullable=False),
    sa.Column('deleted', sa.Boolean(), nullable=False),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], ),
    sa.ForeignKeyConstraint(['preview_id'], ['statics.id'], ),
    sa.ForeignKeyConstraint(['thumbnail_id'], ['statics.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('account_id', 'pixel_hash'),
    sqlite_autoincrement=True
    )
    op.create_index('ix_pictures_version', 'pictures', ['account_id', 'version'], unique=False)
    op.create_table('sessions',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('account_id', ID, nullable=False),
    sa.Column('domain', sa.String(length=255), nullable=False),
    sa.Column('start_urls', sa.JSON(), nullable=False),
    sa.Column('crawl_delay', sa.Double(), nullable=False),
    sa.Column('download_delay', sa.Double(), nullable=False),
    sa.Column('download_timeout', sa.Double(), nullable=False),
    sa.Column('search', sa.Boolean(), nullable=False),
    sa.Column('robots', sa.Boolean(), nullable=False),
    sa.Column('shared', sa.Boolean(), nullable=False),
    sa.Column('interval', sa.Double(), nullable=True),
    sa.Column('cron', sa.String(length=100), nullable=True),
    sa.Column('max_depth', sa.BigInteger(), nullable=True),
    sa.Column('max_pages', sa.BigInteger(), nullable=True),
    sa.Column('user_agent', sa.String(length=255), nullable=True),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('cycle_count', sa.BigInteger(), nullable=False),
    sa.Column('snapshot_key', sa.String(length=255), nullable=True),
    sa.Column('ctime', sa.DateTime(timezone=True), nullable=False),
    sa.Column('mtime', sa.DateTime(timezone=True), nullable=False),
    sa.Column('stime', sa.DateTime(timezone=True), nullable=True),
    sa.Column('next_due', sa.DateTime(timezone=True), nullable=True),
    sa.Column('deleted', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sqlite_autoincrement=True
    )
    op.create_index('ix_sessions_account', 'sessions', ['account_id', 'id'], unique=False)
    op.create_index('ix_sessions_due', 'sessions', ['state', 'next_due'], unique=False)
    op.create_table('batches',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('session_id', ID, nullable=False),
    sa.Column('account_id', ID, nullable=False),
    sa.Column('crawl_cycle', sa.BigInteger(), nullable=False),
    sa.Column('ctime', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], ),
    sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('session_id', 'crawl_cycle'),
    sqlite_autoincrement=True
    )
    op.create_index('ix_batches_account', 'batches', ['account_id', 'id'], unique=False)
    op.create_table('match_surplus',
    sa.Column('account_id', ID, nullable=False),
    sa.Column('picture_id', ID, nullable=False),
    sa.Column('site', sa.String(length=255), nullable=False),
    sa.Column('count', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], ),
    sa.ForeignKeyConstraint(['picture_id'], ['pictures.id'], ),
    sa.PrimaryKeyConstraint('account_id', 'picture_id', 'site')
    )
    op.create_table('matches',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('account_id', ID, nullable=False),
    sa.Column('picture_id', ID, nullable=False),
    sa.Column('type', sa.String(length=8), nullable=False),
    sa.Column('key_id', sa.String(length=64), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('md5', sa.String(length=32), nullable=False),
    sa.Column('page_url', sa.Text(), nullable=False),
    sa.Column('site', sa.String(length=255), nullable=False),
    sa.Column('query_url', sa.Text(), nullable=False),
    sa.Column('alt', sa.Text(), nullable=False),
    sa.Column('session_id', sa.BigInteger(), nullable=False),
    sa.Column('watermarked', sa.Boolean(), nullable=False),
    sa.Column('exclusive', sa.Boolean(), nullable=True),
    sa.Column('p_value', sa.Double(), nullable=True),
    sa.Column('payload', sa.BigInteger(), nullable=True),
    sa.Column('verdict', sa.String(length=16), nullable=True),
    sa.Column('score', sa.Double(), nullable=True),
    sa.Column('mirrored', sa.Boolean(), nullable=True),
    sa.Column('overlap', sa.Double(), nullable=True),
    sa.Column('transform', sa.JSON(), nullable=True),
    sa.Column('width', sa.BigInteger(), nullable=True),
    sa.Column('height', sa.BigInteger(), nullable=True),
    sa.Column('last_modified', sa.DateTime(timezone=True), nullable=True),
    sa.Column('first_seen', sa.DateTime(timezone=True), nullable=False),
    sa.Column('request_id', sa.String(length=40), nullable=False),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], ),
    sa.ForeignKeyConstraint(['picture_id'], ['pictures.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('account_id', 'picture_id', 'key_id', 'sha256', 'page_url'),
    sqlite_autoincrement=True
    )
    op.create_index('ix_matches_created', 'matches', ['account_id', 'created', 'id'], unique=False)
    op.create_index('ix_matches_site', 'matches', ['account_id', 'picture_id', 'site'], unique=False)
    op.create_table('registrations',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('picture_id', ID, nullable=False),
    sa.Column('key_id', sa.String(length=64), nullable=False),
    sa.Column('lmk_key', sa.String(length=255), nullable=True),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['picture_id'], ['pictures.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('picture_id', 'key_id'),
    sqlite_autoincrement=True
    )
    op.create_table('segments',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('session_id', ID, nullable=False),
    sa.Column('cycle', sa.BigInteger(), nullable=False),
    sa.Column('kind', sa.String(length=8), nullable=False),
    sa.Column('seq', sa.BigInteger(), nullable=False),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('key', sa.String(length=255), nullable=False),
    sa.Column('length', sa.BigInteger(), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('stored', sa.DateTime(timezone=True), nullable=False),
    sa.Column('sent', sa.DateTime(timezone=True), nullable=True),
    sa.Column('artifact_offset', sa.BigInteger(), nullable=True),
    sa.Column('deleted', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['session_id'], ['sessions.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('key'),
    sa.UniqueConstraint('session_id', 'cycle', 'kind', 'seq'),
    sqlite_autoincrement=True
    )
    op.create_index('ix_segments_unsent', 'segments', ['kind', 'sent', 'stored'], unique=False)
    op.create_table('artifacts',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('batch_id', ID, nullable=False),
    sa.Column('name', sa.String(length=32), nullable=False),
    sa.Column('count', sa.BigInteger(), nullable=False),
    sa.Column('key', sa.String(length=255), nullable=False),
    sa.Column('length', sa.BigInteger(), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('static_id', ID, nullable=False),
    sa.ForeignKeyConstraint(['batch_id'], ['batches.id'], ),
    sa.ForeignKeyConstraint(['static_id'], ['statics.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('batch_id', 'name'),
    sqlite_autoincrement=True
    )
    op.create_table('media',
    sa.Column('id', ID, autoincrement=True, nullable=False),
    sa.Column('account_id', ID, nullable=False),
    sa.Column('parent_id', ID, nullable=True),
    sa.Column('path', sa.Text(), nullable=False),
    sa.Column('type', sa.String(length=16), nullable=False),
    sa.Column('registration_id', ID, nullable=True),
    sa.Column('exclusive', sa.Boolean(), nullable=True),
    sa.Column('disk_usage', sa.BigInteger(), nullable=False),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['accounts.id'], ),
    sa.ForeignKeyConstraint(['parent_id'], ['media.id'], ),
    sa.ForeignKeyConstraint(['registration_id'], ['registrations.id'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('path'),
    sqlite_autoincrement=True
    )
    op.create_index('ix_media_children', 'media', ['parent_id', 'id'], unique=False)
    op.create_index('ix_media_registration', 'media', ['registration_id'], unique=False)
    op.create_table('match_media',
    sa.Column('match_id', ID, nullable=False),
    sa.Column('media_id', ID, nullable=False),
    sa.ForeignKeyConstraint(['match_id'], ['matches.id'], ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['media_id'], ['media.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('match_id', 'media_id')
    )
    op.create_index('ix_match_media_media', 'match_media', ['media_id', 'match_id'], unique=False)
